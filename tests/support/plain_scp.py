"""pynetdicom as it comes: a Storage SCP in a process of its own, to show what the node does otherwise.

``python plain_scp.py [CERTIFICATE KEY AUTHORITIES]`` writes its port and serves until it is ended.
"""

import ssl
import sys
import threading

from pynetdicom import AE, evt
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification


def main(files: list[str]) -> None:
    """Serve as title NODE."""
    context = None
    if files:
        certificate, key, authorities = files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authorities)
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
    ae = AE("NODE")
    ae.add_supported_context(Verification)
    ae.add_supported_context(ComputedRadiographyImageStorage)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0), (evt.EVT_C_ECHO, lambda _event: 0)],
    )
    print(server.server_address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
