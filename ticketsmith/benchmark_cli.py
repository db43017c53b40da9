"""``python -m ticketsmith.benchmark_cli --checkpoint <run folder>``: measured inference speed."""

if __name__ == "__main__":
    from ticketsmith.cli.benchmark import benchmark
    from ticketsmith.cli.main import enter

    enter(benchmark)
