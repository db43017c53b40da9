"""``python -m ticketsmith.train --config recipe.yaml``: the dense baselines."""

if __name__ == "__main__":
    from ticketsmith.cli.main import end
    from ticketsmith.cli.training import train

    end(train)
