"""Ways into a host from other programs. `conversation` is what all of them speak; `stdio` is an Erlang port's way."""
