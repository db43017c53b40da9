"""Commands on prices."""

from __future__ import annotations

import click

from ticketsmith.cli import options


@click.group()
def prices() -> None:
    """List what machines cost, and ask Azure for today's prices."""


@prices.command("list")
@click.option("--region", help="Only this region.")
@click.option("--machine", help="Only machines whose name contains this.")
@options.as_json
def list_(region: str | None, machine: str | None, as_json: bool) -> None:
    """Every known price, with its source and date; your own go before those that come with TicketSmith."""
    from ticketsmith.prices import table

    def wanted(name: str, place: str) -> bool:
        return (machine or "").lower() in name.lower() and (region is None or place in (region, table.ANYWHERE))

    entries = [entry for entry in table.entries() if wanted(entry.machine, entry.region)]
    entries.sort(key=lambda entry: (not entry.own, entry.region != table.DEFAULT_REGION, entry.region))
    services = [service for service in table.services() if machine is None and wanted("", service.region)]
    if as_json:
        options.print_json(
            {
                "file": str(table.user_file()),
                "machines": [
                    {
                        "machine": entry.machine,
                        "region": entry.region,
                        **entry.price.model_dump(),
                        "currency": entry.currency,
                        **entry.size.model_dump(),
                        "dated": entry.dated,
                        "source": entry.source,
                        "own": entry.own,
                    }
                    for entry in entries
                ],
                "services": [service.model_dump() for service in services],
            }
        )
        return
    sources = list(dict.fromkeys([*(entry.source for entry in entries), *(service.source for service in services)]))
    number = {source: f"[{index}]" if source else "" for index, source in enumerate(sources, 1)}
    options.print_table(
        [
            {
                "name": f"{entry.machine}{' (own)' if entry.own else ''}",
                "region": entry.region,
                "an hour": f"{entry.price.on_demand:g} {entry.currency}",
                "spot": "" if entry.price.spot is None else f"{entry.price.spot:.4g}",
                "GPUs": f"{entry.size.gpus} x {entry.size.gpu}" if entry.size.gpus else "",
                "vCPU": "" if entry.size.vcpu is None else str(entry.size.vcpu),
                "GiB": "" if entry.size.memory_gib is None else f"{entry.size.memory_gib:g}",
                "dated": entry.dated,
                "source": number[entry.source],
            }
            for entry in entries
        ]
    )
    if services:
        options.print_table(
            [
                {
                    "name": service.name,
                    "region": service.region,
                    "price": f"{service.price:g} {service.currency}",
                    "a": service.unit,
                    "dated": service.dated,
                    "source": number[service.source],
                }
                for service in services
            ]
        )
    for source, label in number.items():
        if label:
            click.echo(f"{label} {source}")
    click.echo(f"Your own prices go into {table.user_file()}; docs/costs.md tells the format.")


@prices.command()
@click.option("--region", "regions", multiple=True, help="An Azure region, such as westeurope; repeatable. [eastus]")
@click.option("--machine", "machines", multiple=True, help="A machine size; repeatable. By default all of the table.")
@click.option("--url", help="Another address of the interface.")
def refresh(regions: tuple[str, ...], machines: tuple[str, ...], url: str | None) -> None:
    """Ask Azure's public retail prices and write your own price file. Needs a network, and no account."""
    import datetime

    from ticketsmith.cli.progress import note
    from ticketsmith.prices import refresh as writing
    from ticketsmith.prices import retail, table

    today = datetime.datetime.now(datetime.UTC).date()
    place = table.user_file()
    asked = machines or tuple(table.shipped().machines)
    answers = {}
    for region in regions or (table.DEFAULT_REGION,):
        note(f"asking for the prices of {len(asked)} machines in {region} ...")
        answers[region] = retail.ask(asked, region, url, today=today)
        if not answers[region]:
            raise retail.PriceError(f"{region}: none of these machines is sold there. Is the region's name right?")
    for region, sold in answers.items():
        writing.write(place, region, sold, asked, today)
        click.echo(f"{region}: {len(sold)} prices of {today.isoformat()} written to {place}")
        missing = [machine for machine in asked if machine not in sold]
        if missing:
            note(f"not sold there: {', '.join(missing)}")
