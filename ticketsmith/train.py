"""``python -m ticketsmith.train --config recipe.yaml``: the dense baselines."""

if __name__ == "__main__":
    from ticketsmith.cli.main import enter
    from ticketsmith.cli.training import train

    enter(train)
