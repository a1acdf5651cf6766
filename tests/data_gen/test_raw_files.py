"""Original files: found in either folder, compared with their checksums, fetched where there is a network."""

import gzip
import hashlib
import http.server
import threading

import pytest

from data_gen.raw_files import RawFile, open_raw, provide, read_exactly
from vae_rd.datasets.records import RecordsError

CONTENT = b"the content of an original file " * 1000
PACKED = gzip.compress(CONTENT, 9, mtime=1)


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _file(url="http://127.0.0.1:9/data.gz", checksum=_sha256(PACKED), content=_sha256(CONTENT)):
    return RawFile("data.gz", url, len(PACKED), checksum, content)


@pytest.fixture
def server(tmp_path_factory):
    """A web server on this machine; yields the folder it serves and its address."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_a_file_without_an_address_is_asked_for(tmp_path):
    with pytest.raises(RecordsError, match="data.gz of toy must be the original .*has no address.*Put it into"):
        provide([_file(url="")], tmp_path, "toy")


@pytest.mark.parametrize("place", ["toy/data.gz", "data.gz", "toy/data", "data"])
def test_files_are_found(tmp_path, place):
    (tmp_path / "toy").mkdir()
    (tmp_path / place).write_bytes(PACKED if place.endswith(".gz") else CONTENT)
    assert _file().locate(tmp_path, "toy") == tmp_path / place
    provide([_file()], tmp_path, "toy")


@pytest.mark.parametrize("name, content", [("data.gz", CONTENT), ("data", PACKED)])
def test_a_file_is_what_it_begins_with_whatever_its_name(tmp_path, name, content):
    """A browser may unpack a file and keep its name."""
    (tmp_path / name).write_bytes(content)
    provide([_file()], tmp_path, "toy")
    with open_raw(tmp_path / name) as file:
        assert file.read() == CONTENT


def test_the_folder_of_the_data_set_comes_first(tmp_path):
    """MNIST and Fashion-MNIST use the same file names."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "data.gz").write_bytes(PACKED)
    (tmp_path / "data.gz").write_bytes(b"of another set")
    provide([_file()], tmp_path, "toy")


def test_compressed_anew_counts_as_the_original(tmp_path):
    (tmp_path / "data.gz").write_bytes(gzip.compress(CONTENT, 1, mtime=99))
    provide([_file()], tmp_path, "toy")


def _folder(raw_dir):
    (raw_dir / "toy").mkdir(exist_ok=True)
    return raw_dir / "toy"


@pytest.mark.parametrize("content", [gzip.compress(CONTENT + b"!", mtime=1), PACKED[:-9],
                                     PACKED[:40] + b"x" + PACKED[41:], b"no gzip at all", b""])
def test_another_file_is_refused_with_expected_and_found(tmp_path, content):
    (_folder(tmp_path) / "data.gz").write_bytes(content)
    with pytest.raises(RecordsError, match=f"expected sha256 {_sha256(PACKED)} and {len(PACKED)} bytes, found .* and "
                                           f"{len(content)} bytes.*fetch http"):
        provide([_file()], tmp_path, "toy")
    assert (_folder(tmp_path) / "data.gz").read_bytes() == content


def test_only_the_original_compression_where_the_content_is_not_known(tmp_path):
    (_folder(tmp_path) / "data.gz").write_bytes(gzip.compress(CONTENT, 1, mtime=99))
    with pytest.raises(RecordsError, match="is not the original"):
        provide([_file(content=None)], tmp_path, "toy")


def test_md5_where_nothing_better_is_published(tmp_path):
    (_folder(tmp_path) / "data.gz").write_bytes(PACKED)
    file = _file(checksum=hashlib.md5(PACKED).hexdigest(), content=None)
    provide([file], tmp_path, "toy")
    (_folder(tmp_path) / "data.gz").write_bytes(PACKED + b"!")
    with pytest.raises(RecordsError, match="expected md5"):
        provide([file], tmp_path, "toy")


def test_missing_files_are_downloaded_and_checked(tmp_path, server, capsys):
    folder, address = server
    (folder / "data.gz").write_bytes(PACKED)
    provide([_file(f"{address}/data.gz")], tmp_path / "raw", "toy")
    assert (tmp_path / "raw" / "toy" / "data.gz").read_bytes() == PACKED
    output = capsys.readouterr()
    assert f"downloading {address}/data.gz" in output.out and "100%" in output.err


def test_a_wrong_download_gets_no_name(tmp_path, server):
    folder, address = server
    (folder / "data.gz").write_bytes(PACKED[:100])
    with pytest.raises(RecordsError, match="must return the original .it returned another file: expected sha256"):
        provide([_file(f"{address}/data.gz")], tmp_path, "toy")
    assert not list((tmp_path / "toy").iterdir())


def test_a_file_of_the_same_name_that_is_another_set_s_is_left_alone(tmp_path, server):
    folder, url = server
    (folder / "data.gz").write_bytes(PACKED)
    (tmp_path / "data.gz").write_bytes(b"of another set")
    provide([_file(f"{url}/data.gz")], tmp_path, "toy")
    assert (tmp_path / "data.gz").read_bytes() == b"of another set"
    assert (tmp_path / "toy" / "data.gz").read_bytes() == PACKED
    (tmp_path / "toy" / "data.gz").unlink()
    with pytest.raises(RecordsError, match="data.gz is not the original: expected sha256 .* cannot be"):
        provide([_file()], tmp_path, "toy")


def test_a_file_the_server_does_not_have(tmp_path, server):
    with pytest.raises(RecordsError, match="cannot be downloaded .HTTP Error 404"):
        provide([_file(f"{server[1]}/data.gz")], tmp_path, "toy")


def test_without_a_network_every_missing_file_is_named_with_its_place(tmp_path):
    other = _file()._replace(name="more.gz", url="http://127.0.0.1:9/more.gz")
    there = _file()._replace(name="there.gz")
    (tmp_path / "there.gz").write_bytes(PACKED)
    with pytest.raises(RecordsError) as error:
        provide([there, _file(), other], tmp_path, "toy")
    text = str(error.value)
    for words in ("data.gz of toy is not in", "cannot be downloaded", "http://127.0.0.1:9/data.gz",
                  "http://127.0.0.1:9/more.gz", f"put it into {tmp_path}/toy", "--raw_dir"):
        assert words in text
    assert "there.gz" not in text


@pytest.mark.parametrize("content, words", [(PACKED[:60], "cannot be read"), (b"not gzip", "cannot be read"),
                                            (gzip.compress(b"four", mtime=1), "expected 5 bytes, got 4")])
def test_reading_past_the_end(tmp_path, content, words):
    path = tmp_path / "data.gz"
    path.write_bytes(content)
    with gzip.open(path) as file, pytest.raises(RecordsError, match=words):
        read_exactly(file, 5 if len(content) < 30 else 10**6, path)
