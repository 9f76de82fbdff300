"""Every state of the page, brought about in a real browser on a real server: to be looked at and checked.

``python -m tests.shots`` makes pictures of them; the tests of accessibility go through the same states.
``states`` is the list: a line adds one.
"""
