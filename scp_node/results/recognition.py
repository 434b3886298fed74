"""Which objects are results of this node, or of another one of its kind, and have come back."""

import re

from pydicom import Dataset

from config.results import ResultSettings
from scp_node.results import context, uids
from scp_node.results.case import uid_of

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_own_result(dataset: Dataset, settings: ResultSettings) -> bool:
    """Whether an object was made by this node or by another one of its kind.

    Recognised by equipment and by the Device UIDs of our models, which archives leave alone; never by Image Type,
    series description or patient. The File Meta Information says only who wrote the file last, so it is not asked.

    Parameters
    ----------
    dataset
        Header of a received object.
    settings
        Of this node; another node's own names are not needed to recognise it.
    """
    software_versions = context.text(dataset, "SoftwareVersions").split("\\")
    if any(version.startswith(f"{uids.PRODUCT} ") for version in software_versions):
        return True
    maker = (context.text(dataset, "Manufacturer"), context.text(dataset, "ManufacturerModelName"))
    own = (settings.manufacturer, settings.manufacturer_model_name)
    if maker in (own, (uids.PRODUCT, uids.PRODUCT)) and any(maker):
        return True
    return any(_is_own_device(item) for item in context.items_of(dataset, "ContributingEquipmentSequence"))


def _is_own_device(item: Dataset) -> bool:
    digests = _DIGEST.findall(context.text(item, "ContributionDescription"))
    return uid_of(item, "DeviceUID") in {uids.device_uid(digest) for digest in digests}
