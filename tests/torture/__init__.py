"""Torture: a real ``inkstream serve`` whose processes are killed while answers are written and read.

``python -m tests.torture --help`` says how to run it, ``docs/torture.md`` what it proves. The seed fixes
every choice (prompts, readers, cuts, the order and kind of blows), not what the machine makes of them: the
same seed torments in the same way, it does not repeat the same microseconds.
"""
