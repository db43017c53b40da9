"""``python -m ticketsmith.report --runs-prefix runs``: the reports of a folder of experiments."""

if __name__ == "__main__":
    from ticketsmith.cli.evidence import report
    from ticketsmith.cli.main import enter

    enter(report)
