"""The command line `oarlock-md`: one module a command, which imports what it needs when it runs."""
