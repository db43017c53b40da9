"""Runs as files for others: a ticket to keep, weights for anybody, models to serve. Reads sealed runs, trains nothing new."""
