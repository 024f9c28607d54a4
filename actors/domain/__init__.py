"""Pure rules of reservations and stock: no IO, no clock, no await. Imports only the standard library."""
