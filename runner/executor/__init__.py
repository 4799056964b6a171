"""Effect: the inside of an executor process, which runs one handler's code and nothing else of ours."""
