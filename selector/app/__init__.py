"""The command line: where it starts, and the commands that list things."""
