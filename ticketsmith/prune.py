"""``python -m ticketsmith.prune --config recipe.yaml``: a whole experiment."""

if __name__ == "__main__":
    from ticketsmith.cli.main import end
    from ticketsmith.cli.training import prune

    end(prune)
