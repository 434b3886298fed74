"""Tables of labels: what is trusted, what is refused by name and line; images as the node renders them."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from inference.training.dataset import (
    KERMANY,
    NIH,
    DatasetError,
    load_images,
    read_display_values,
    read_labels,
    sampling_weights,
)


def _table(folder, *rows, header="file,label,split,source,rsna_label,rsna_boxes"):
    file = folder / "labels.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(224, 224), (311, 257)])
def test_jpegs_read_as_the_node_renders_them_are_the_plain_grey_values(tmp_path, mode, size):
    """The runs that made the shipped weights began on Pillow's grey values: rendering must not differ by one level."""
    rng = np.random.default_rng(2)
    grey = np.clip(rng.normal(128, 60, size), 0, 255).astype(np.uint8)
    file = tmp_path / "chest.jpg"
    Image.fromarray(grey).convert(mode).save(file, quality=92)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(read_display_values(file), expected)


def test_smallest_site_table_is_two_columns(tmp_path):
    rows = read_labels(_table(tmp_path, "a.dcm,pneumonia", "b.png, Normal ", header="file,label"))
    assert [(row.name, row.is_positive, row.source, row.split) for row in rows] == [
        ("a.dcm", True, "site", ""),
        ("b.png", False, "site", ""),
    ]
    assert all(row.is_confirmed and not row.boxes for row in rows)
    assert rows[0].file == tmp_path / "a.dcm"


def test_table_may_be_named_itself_and_come_from_a_spreadsheet(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(b"\xef\xbb\xbffile,label\r\na.png,normal\r\n")
    assert [row.name for row in read_labels(file)] == ["a.png"]


def test_radiologists_overrule_text_mining(tmp_path):
    rows = read_labels(
        _table(
            tmp_path,
            f"a.jpg,pneumonia,val,{NIH},Normal,",
            f"b.jpg,normal,val,{NIH},Lung Opacity,",
            f"c.jpg,pneumonia,val,{NIH},No Lung Opacity / Not Normal,",
            f"d.jpg,pneumonia,val,{NIH},,",
            f"e.jpg,normal,val,{NIH},,",
            f"f.jpg,pneumonia,val,{KERMANY},,",
        )
    )
    assert [row.is_positive for row in rows] == [False, True, True, True, False, True]
    assert [row.is_confirmed for row in rows] == [True, True, False, False, True, True]
    assert [row.is_labelled_positive for row in rows] == [True, False, True, True, False, True]
    assert (rows[0].target, rows[1].target) == (pytest.approx(0, abs=0.1), pytest.approx(1, abs=0.1))
    assert rows[3].weight < rows[4].weight < rows[1].weight


def test_boxes_are_fractions_of_the_image(tmp_path):
    (row,) = read_labels(_table(tmp_path, f'a.jpg,pneumonia,val,{NIH},Lung Opacity,"[[128, 256, 64, 51.2]]"'))
    assert row.boxes == ((0.25, 0.5, 0.125, 0.1),)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a.jpg,pneumonia"], "file,Label", "column label is missing"),
        (["a.jpg,maybe"], "file,label", r"line 2: label 'maybe' is neither normal nor pneumonia"),
        (["a.jpg,normal", ",normal"], "file,label", "line 3: file is empty"),
        (["a.jpg,normal", "a.jpg,pneumonia"], "file,label", r"line 3: a\.jpg is there twice"),
        (["a.jpg"], "file,label", "line 2: label '' is neither"),
        (["a.jpg,pneumonia,[[1]]"], "file,label,rsna_boxes", "line 2: rsna_boxes is not"),
        ([], "file,label", "no image"),
    ],
)
def test_mistakes_in_a_table_are_named_with_their_line(tmp_path, rows, header, message):
    with pytest.raises(DatasetError, match=message):
        read_labels(_table(tmp_path, *rows, header=header))


def test_missing_table_binary_table_and_unknown_split_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="cannot read"):
        read_labels(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe\x00,normal\n")
    with pytest.raises(DatasetError, match="not a CSV file in UTF-8"):
        read_labels(tmp_path)
    with pytest.raises(DatasetError, match="split 'val'"):
        read_labels(_table(tmp_path, "a.jpg,normal", header="file,label"), "val")


def test_extra_columns_and_fields_do_no_harm(tmp_path):
    rows = read_labels(_table(tmp_path, "a.jpg,normal,something,more,than,the,header", header="file,label,remark"))
    assert len(rows) == 1


def test_draws_are_balanced_across_source_and_class(phantoms):
    rows = read_labels(phantoms, "train")
    shares = defaultdict(float)
    for row, weight in zip(rows, sampling_weights(rows, nih_share=0.35), strict=True):
        shares[row.source, row.is_positive] += weight
    expected = {(KERMANY, True): 0.325, (KERMANY, False): 0.325, (NIH, True): 0.175, (NIH, False): 0.175}
    assert shares == pytest.approx(expected)


def test_several_sites_share_the_draws(tmp_path):
    lines = [
        f"{source}{i}.jpg,{label},train,{source},,"
        for source in "abc"
        for i, label in enumerate(("normal", "pneumonia"))
    ]
    weights = sampling_weights(read_labels(_table(tmp_path, *lines)))
    np.testing.assert_allclose(weights, 1 / 6)


def test_images_come_at_one_size(phantoms):
    rows = read_labels(phantoms, "val")
    count = []
    images = load_images(rows, 64, lambda: count.append(1))
    assert images.shape == (12, 64, 64)
    assert len(count) == 12
