"""pynetdicom as it comes: a Storage SCP in a process of its own, to show what the node does otherwise.

``python plain_scp.py [--folder FOLDER] [CERTIFICATE KEY AUTHORITIES]`` writes its port and serves until it is ended.
With a folder it keeps what it gets under the SOP Instance UID, as the examples of the library do.
"""

import argparse
import ssl
import threading
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification


def main() -> None:
    """Serve as title NODE."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    context = None
    if args.files:
        certificate, key, authorities = args.files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authorities)
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED

    def store(event: Event) -> int:
        if args.folder is not None:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            dataset.save_as(args.folder / dataset.SOPInstanceUID, enforce_file_format=True)
        return 0

    ae = AE("NODE")
    ae.add_supported_context(Verification)
    ae.add_supported_context(ComputedRadiographyImageStorage)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_ECHO, lambda _event: 0)],
    )
    print(server.server_address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
