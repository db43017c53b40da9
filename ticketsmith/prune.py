"""``python -m ticketsmith.prune --config recipe.yaml``: a whole experiment."""

if __name__ == "__main__":
    from ticketsmith.cli.main import enter
    from ticketsmith.cli.training import prune

    enter(prune)
