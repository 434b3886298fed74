"""Tables of labels as sites have them: what a spreadsheet does to them, and what would make figures too good."""

import pytest

from inference.training.dataset import DatasetError, read_labels, read_splits
from scp_node.cli.main import main

HEADER = "file,label,split,source,patient"
SOUND = ("a.jpg,normal,train,,1", "b.jpg,pneumonia,train,,2", "c.jpg,normal,val,,3", "d.jpg,pneumonia,val,,4")


def _table(folder, *rows, header=HEADER):
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_sound_splits_are_read(tmp_path):
    training, validation = read_splits(_table(tmp_path, *SOUND))
    assert [row.name for row in training] == ["a.jpg", "b.jpg"]
    assert [row.name for row in validation] == ["c.jpg", "d.jpg"]


def test_a_patient_in_both_splits_is_refused_with_both_files(tmp_path):
    _table(tmp_path, *SOUND, "e.jpg,pneumonia,val,,1")
    with pytest.raises(
        DatasetError, match=r"a\.jpg of split 'train' and e\.jpg of split 'val' are of the same patient"
    ):
        read_splits(tmp_path)


def test_pseudonyms_of_two_hospitals_are_not_the_same_patient(tmp_path):
    _table(tmp_path, *SOUND, "e.jpg,pneumonia,val,other hospital,1")
    assert len(read_splits(tmp_path)[1]) == 3


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("missing", ["normal", "pneumonia"])
def test_a_split_of_one_class_is_refused_before_hours_of_training(tmp_path, capsys, split, missing):
    _table(tmp_path, *(row for row in SOUND if not (split in row and missing in row)))
    run = tmp_path / "run"
    assert main(["train", "--model", "resnet18", "--data", str(tmp_path), "--run", str(run)]) == 1
    assert f"split '{split}' has no image with a label of {missing}" in capsys.readouterr().err
    assert not run.exists()


def test_one_file_by_two_names_is_there_twice(tmp_path):
    _table(tmp_path, *SOUND, "x/../a.jpg,normal,val,,5")
    with pytest.raises(DatasetError, match=r"line 6: x/\.\./a\.jpg is there twice"):
        read_labels(tmp_path)


def test_a_name_that_no_file_can_have_is_a_mistake_of_its_line(tmp_path):
    _table(tmp_path, *SOUND, "e\0.jpg,normal,val,,5")
    with pytest.raises(DatasetError, match=r"line 6: file .* holds a NUL"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("header", "says"),
    [("file;label", "found 'file;label' .commas part"), ("File, label", "found 'File', ' label'")],
)
def test_a_header_of_another_kind_is_shown(tmp_path, header, says):
    _table(tmp_path, "a.jpg;normal", header=header)
    with pytest.raises(DatasetError, match=f"column file, label is missing; {says}"):
        read_labels(tmp_path)
