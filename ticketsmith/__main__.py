"""``python -m ticketsmith``: the same as the command ``ticketsmith``."""

if __name__ == "__main__":
    from ticketsmith.cli.main import main

    main()
