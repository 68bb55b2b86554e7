"""What ranking workers are forked from: a process that has imported this, and does nothing with it.

It ends with the process that looks after the workers. A SIGTERM to all processes of a service must not end it sooner, for then
nobody could tell any more whether a worker is still at its last calls. The signal is blocked rather than ignored: one that
comes to a worker before it has unblocked it is kept.
"""

import signal

import services.ranking.server
import services.ranking.workers  # noqa: F401

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
