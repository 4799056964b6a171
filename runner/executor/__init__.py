"""Effect: the executor process, which runs the code of one handler."""
