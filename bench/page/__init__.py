"""The page in real Chromium against a scripted server: what it costs and how late its text is.

python -m bench.page [--quick] [--throttle 1 4] [--only long steady …]
"""
