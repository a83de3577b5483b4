"""The command line `oarlock-llm`: one module a command, which imports what it needs when it runs."""
