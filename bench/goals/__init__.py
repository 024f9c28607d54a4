"""The performance goals: each measured beside what it is compared with, and one table of all of them: ``python -m bench goals``.

``catalog`` says what each goal wants and judges it, ``measures`` what has to run for it, ``table`` holds the answers, ``showing``
draws them. Scenarios, rivals and proofs are those of ``bench.running``; nothing is measured in a second way here.
"""
