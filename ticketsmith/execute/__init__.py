"""How the runs of a plan get made: on this machine. Executors are handed specs and a store; they know no science."""
