"""The command that prints what a shell needs to complete commands, options and files."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion of a shell.

    \b
    bash: echo 'eval "$(ticketsmith completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(ticketsmith completion zsh)"' >> ~/.zshrc
    fish: ticketsmith completion fish > ~/.config/fish/completions/ticketsmith.fish
    """
    from click.shell_completion import BashComplete, get_completion_class

    class AnyBash(BashComplete):
        """Without asking which bash is the first in PATH: the script says itself what it cannot do."""

        @staticmethod
        def _check_version() -> None:
            pass

    kind = AnyBash if shell == "bash" else get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "ticketsmith", "_TICKETSMITH_COMPLETE").source()
    if shell == "zsh":  # which has no `compdef` until somebody asks for it
        name, _, rest = script.partition("\n")
        script = f"{name}\n(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i }}\n{rest}"
    if shell == "fish":  # what a command does may have a comma in it
        script = script.replace('string split ","', 'string split --max 1 ","')
    click.echo(script)
