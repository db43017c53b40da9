"""Candidates for serving: each written as the file that would be served, judged by running that file, and timed."""
