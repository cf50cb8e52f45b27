"""`demo`: a real job, killed again and again."""

from __future__ import annotations

import click

from holdfast.cli.session import Session, command


@command("demo")
@click.option(
    "--modules",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    metavar="N",
    help="Modules of the standard library to audit.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=3,
    show_default=True,
    metavar="N",
    help="Worker processes.",
)
@click.option(
    "--kills",
    type=click.IntRange(0, 1000),
    default=12,
    show_default=True,
    metavar="N",
    help="How often to kill one with SIGKILL.",
)
@click.option("--seed", type=int, metavar="N", help="Makes the kills repeatable.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Keep the files there, and say how to look around.",
)
def demo_command(
    session: Session, *, modules: int, workers: int, kills: int, seed: int | None, keep: str | None
) -> int:  # fmt: skip
    """Watch a real job survive kill -9.

    Worker processes audit modules of Python's standard library while a supervisor kills them at
    random moments. Exits with 1 if anything was lost or repeated.
    """
    from holdfast.demo import run_demo

    return run_demo(
        modules=modules,
        workers=workers,
        kills=kills,
        seed=seed,
        keep=keep,
        json_output=session.output.json,
    )
