"""A node that stops while many destinations keep silent."""

import threading
import time

from config.destinations import DeliverySettings
from scp_node.jobs import probing
from scp_node.jobs.probing import Probing

LIMIT_S = 60


def test_questions_under_way_share_the_time_that_a_stop_waits(monkeypatch):
    monkeypatch.setattr(probing, "_CLOSE_S", 1.0)
    asking = Probing(None, None, (), DeliverySettings(), calling_ae_title="NODE")
    over = threading.Event()
    threads = [threading.Thread(target=over.wait, args=(4.0 * LIMIT_S,), daemon=True) for _ in range(LIMIT_S)]
    for thread in threads:
        thread.start()
    asking._asking = {str(number): thread for number, thread in enumerate(threads)}
    begun = time.monotonic()
    asking.stop()
    took_s = time.monotonic() - begun
    over.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert took_s < LIMIT_S / 2
