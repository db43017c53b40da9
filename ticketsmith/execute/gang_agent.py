"""torchrun for the ranks of one gang; it tells the executor which of them failed, and how.

python -m ticketsmith.execute.gang_agent SIZE ADDRESS
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

from ticketsmith.execute.rank import ALONE, connect


def main(size: int, address: str) -> int:
    """Ends with the last rank, or soon after the first that fails: then it ends the others too."""
    executor = connect(address, "agent")
    logging.disable(logging.CRITICAL)  # its reports are for people who look after clusters; ours is one line
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")  # all ranks are here
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "10")

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    here = ["--standalone", "--nnodes=1", "--local-addr=127.0.0.1", "--max-restarts=0", f"--nproc-per-node={size}"]
    try:
        run(parse_args([*here, "-m", "ticketsmith.execute.rank", address]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failures = {rank: failure.exitcode for rank, failure in error.failures.items()}
        with suppress(OSError):  # the executor was killed, and so the ranks have ended
            executor.send({rank: code for rank, code in failures.items() if code != ALONE} or failures)
        return 1
    except SignalException:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
