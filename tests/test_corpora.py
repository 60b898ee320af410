"Texts: reading, encodings, Project Gutenberg's marks, and cutting in order."
import random

import pytest

from coursekit import corpora
from coursekit.corpora import dickinson, python_source, read_text, shakespeare, split_text, strip_gutenberg, text_file
from coursekit.files import CourseError
from coursekit.workspace import setup


def test_the_parts_do_not_overlap_and_are_the_whole():
    string = "".join(random.Random(0).choices("abcdefgh \n", k=1003))
    text = split_text("x", string)
    assert text.decode(text.train) + text.decode(text.valid) + text.decode(text.test) == string
    assert [len(p) for p in (text.train, text.valid, text.test)] == [802, 100, 101] and text.title == "x"
    customary = split_text("x", string, (0.9, 0.1, 0))
    assert len(customary.train) == int(0.9 * 1003) and len(customary.test) == 0 \
        and customary.fingerprint != text.fingerprint
    assert split_text("x", string[::-1]).fingerprint != text.fingerprint


def test_what_the_training_part_does_not_have_is_the_unknown_mark():
    text = split_text("x", "ab" * 425 + "é" * 150)
    assert text.chars == ["\ufffd", "a", "b"] and (text.valid[-1], text.encode("aéb").tolist()) == (0, [1, 0, 2]) \
        and text.decode([0]) == "\ufffd"


def test_texts_at_tiny_scale_say_what_they_are(ws):
    for text in shakespeare(ws), dickinson(ws):
        assert "stand-in for" in text.title and text.stand_in == "Python's own source" and len(text.train) == 24_000
    assert len({t.fingerprint for t in (shakespeare(ws), dickinson(ws), python_source(ws))}) == 3 \
        and python_source(ws).title == "Python's standard library"


def test_a_part_of_the_real_text_says_so(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "tinyshakespeare.txt").write_text("To be, or not to be.\n" * 5000)
    text = shakespeare(setup("tiny", data=tmp_path))
    assert text.title == "tiny Shakespeare (30,000 of 105,000 characters)" and not text.stand_in


def test_gutenbergs_header_and_licence_are_cut_off(tmp_path):
    book = ("\ufeffThe Project Gutenberg eBook of X\r\n*** START OF THE PROJECT GUTENBERG EBOOK X,\r\nAND Y "
            "***\r\n\r\nA poem.\r\n\r\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\nlicence")
    (tmp_path / "x.txt").write_bytes(book.encode())
    assert read_text(tmp_path / "x.txt") == "A poem.\n" and strip_gutenberg("A poem.") == "A poem.\n"
    assert strip_gutenberg("***START OF THIS PROJECT GUTENBERG EBOOK X***\nA\n***END OF THIS PROJECT GUTENBERG EBOOK "
                           "X***") == "A\n"


NEW = ("The Project Gutenberg eBook of X\n\nRelease date: 1999\n\n*** START OF THE PROJECT GUTENBERG EBOOK X,\nOR, THE "
       "Y ***\n\n{}\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n\nUpdated editions ...\n*** START: FULL LICENSE "
       "***\nlicence\n")
OF_2005 = ("Project Gutenberg's X, by Y\n\n***START OF THIS PROJECT GUTENBERG EBOOK X***\n\n{}\n\nEnd of Project "
           "Gutenberg's X, by Y,\nwith a second line\n\n***END OF THIS PROJECT GUTENBERG EBOOK X***\nlicence\n")
OLD = ("**The Project Gutenberg Etext of X**\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN "
       "ETEXTS**START***\nWhy?\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n{}\n\nEnd of The "
       "Project Gutenberg Etext of X\n")
OF_2002 = ("The Project Gutenberg EBook of X\n\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN "
           "EBOOKS*\nVer.02/11/02*END*\n\n{}\n\nEnd of the Project Gutenberg EBook of X, by Y\n")
ENDLESS = OLD[:OLD.index("\nEnd of")]  # as some old ones are


@pytest.mark.parametrize("form",
                         [NEW, OF_2005, OLD, OF_2002, ENDLESS, NEW.replace("THE PROJECT", "THE COPYRIGHTED PROJECT"),
                          OF_2005.replace("End of Project Gutenberg's X, by Y,", "Ende dieses Project Gutenberg "
                                                                                 "Etextes X,")])
def test_a_book_of_any_year_is_what_stands_between_its_marks(form):
    assert strip_gutenberg(form.format("The first line.\n\n* * *\n\nThe last *** line.")) \
        == "The first line.\n\n* * *\n\nThe last *** line.\n"


@pytest.mark.parametrize("forms", [[NEW] * 3, [OLD] * 2, [OF_2005, OLD, NEW], [NEW, OF_2002, OF_2005, NEW],
                                   [ENDLESS, ENDLESS, NEW], [OLD, ENDLESS]])
def test_several_books_in_one_file_are_all_kept(forms, tmp_path, capsys):
    books = [f"{k} " + "call me Ishmael\n" * (50 * k) + f"the end of {k}" for k in range(1, len(forms) + 1)]
    (tmp_path / "all.txt").write_bytes(b"\r\n".join(form.format(book).replace("\n", "\r\n").encode("utf-8-sig")
                                                    for form, book in zip(forms, books)) + b"\x1a")
    kept = read_text(tmp_path / "all.txt")
    assert kept == "\n\n".join(books) + "\n"
    said = capsys.readouterr().out
    assert said.startswith(f"all.txt: {len(books)} books of Project Gutenberg with ") \
        and said.endswith(", headers and licences, are left out.\n")
    assert strip_gutenberg(kept) == kept and not capsys.readouterr().out


def test_what_only_looks_like_a_mark_stays(tmp_path, capsys):
    volumes = "one\n\nEnd of the Project Gutenberg EBook of X, Volume 1\n\n" + "two\n" * 200
    assert strip_gutenberg(NEW.format(volumes)) == volumes
    for text in "*** START ***\nthis\n*** END ***\n", "The end of Project X\n", "a\n*END*\nb\n", \
        "read Project Gutenberg's books\n":
        (tmp_path / "x.txt").write_text(text)
        assert read_text(tmp_path / "x.txt") == text and not capsys.readouterr().out
    assert strip_gutenberg("A poem.\n\n*END*THE SMALL PRINT! at the end*END*\n").startswith("A poem."), \
        "nothing is no book"
    (tmp_path / "x.txt").write_text("x" * 500 + "\n" + NEW.format("a book"))
    assert read_text(tmp_path / "x.txt") == "a book\n" \
        and "1 book of Project Gutenberg with 10 characters; the other 7" in capsys.readouterr().out, \
            "what is left out is said"


@pytest.mark.parametrize("make, says", [
    (lambda p: read_text(p / "none.txt"), "can't be read .No such file.*give the path of a text file"),
    (lambda p: read_text(p), "can't be read .Is a directory"),
    (lambda p: read_text(p / "latin.txt"), "latin.txt is not utf-8: byte 10 .line 2. is 0xe9; .*encoding='cp1252'"),
    (lambda p: read_text(p / "zeros.txt"), "zeros.txt is no plain text, as it holds control characters"),
    (lambda p: read_text(p / "utf16.txt"), "utf16.txt is no plain text"),
    (lambda p: read_text(p / "latin.txt", "nonsense"), "no encoding 'nonsense'"),
    (lambda p: text_file(p / "short.txt"), "short.txt has 6 characters"),
    (lambda p: split_text("x", "abc" * 100, (0.5, 0.5, 0.5)), "parts are .*add up to 1"),
    (lambda p: split_text("x", "abc" * 100, (1., 0, 0)), "parts are .*add up to 1"),
    (lambda p: shakespeare(setup("quick", data=p / "empty")), "Scale 'tiny' runs on a stand-in"),
])
def test_a_bad_file_is_a_sentence(make, says, tmp_path, monkeypatch):
    (tmp_path / "latin.txt").write_bytes("a line\nun été\n".encode("latin-1"))
    (tmp_path / "zeros.txt").write_bytes(b"ab\0\0\x01 text")
    (tmp_path / "utf16.txt").write_text("hello there", encoding="utf-16")
    (tmp_path / "short.txt").write_text("hello\n")
    monkeypatch.setattr(corpora, "fetch", no_host)
    with pytest.raises(CourseError, match=says):
        make(tmp_path)


def no_host(name, ws):
    raise CourseError(f"No host serves {name}.")


def test_another_encoding_can_be_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes(("un été\r\n" * 30).encode("cp1252"))
    for encoding in "cp1252", "latin-1", "iso-8859-15":
        assert text_file(tmp_path / "latin.txt", encoding=encoding).chars[1:] == sorted("\n étnu")
    (tmp_path / "utf16.txt").write_text("un été", encoding="utf-16")
    assert read_text(tmp_path / "utf16.txt", "utf-16") == "un été\n"
    (tmp_path / "utf8.txt").write_text("un été", encoding="utf-8-sig")
    assert read_text(tmp_path / "utf8.txt", None) == read_text(tmp_path / "utf8.txt", "utf-8-sig") == "un été\n"


@pytest.mark.parametrize("data, encoding, says", [
    ("l’été".encode("cp1252"), "latin-1", r"x.txt holds 0x92 \(line 2\), which is a control character in latin-1; "
                                          r"encoding='cp1252' fits\.$"),
    ("5 € “here”".encode("cp1252"), "iso-8859-15", r"holds 0x80 \(line 2\), .* in iso-8859-15; encoding='cp1252' "
                                                   r"fits\.$"),
    ("tę łódź śpiewa".encode("cp1250"), "iso8859_2", r"holds 0x9f .*; encoding='cp1250' fits\.$"),
    ("caf\x8e, \x81".encode("latin-1"), "latin1", r"holds 0x8e .*; save it as UTF-8, or name its encoding, such as "
                                                  r"encoding='cp850' \(DOS\) or encoding='mac_roman' \(Macintosh\)\.$"),
    ("caf\x8e, \x81".encode("latin-1"), "cp1252", r"is not cp1252: byte 13 \(line 2\) is 0x81; save it as UTF-8, or "
                                                  r"name its encoding, such as encoding='cp850'"),
    ("l’été".encode(), "latin-1", "is not latin-1: encoding='utf-8' fits"),
    ("un été".encode(), "latin-1", "is not latin-1: encoding='utf-8' fits"),  # without a control character
    ("“here”".encode(), "mac_roman", "is not mac_roman: encoding='utf-8' fits"),
    ("l’été".encode("cp1252").decode("latin-1").encode(), "utf-8",
     r"holds 0x92 \(line 2\), .* in utf-8; it was read with a wrong encoding before it was saved: get another copy\.$"),
    (b"abc", 5, "There is no encoding 5"),
    (b"abc", "", "There is no encoding ''"),
    (b"abc\x1adef", None, "is no plain text"),
])
def test_a_wrong_encoding_is_a_sentence_with_one_that_fits(data, encoding, says, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"line 1\n" + data)
    with pytest.raises(CourseError, match=says):
        read_text(tmp_path / "x.txt", encoding)


@pytest.mark.parametrize("end", [b"\x1a", b"\n\x1a", b"\r\n\x1a\r\n", b"\x1a\x1a\x1a", b"\n\n"])
def test_the_end_of_a_file_is_no_text(end, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"one\r\ntwo" + end)
    assert read_text(tmp_path / "x.txt") == "one\ntwo\n"


@pytest.mark.parametrize("string", ["\ufeffone\ntwo", "one\n\ufefftwo", "one\n\ufeff\ufefftwo\ufeff", "o\ufeffne\ntwo"])
def test_byte_order_marks_are_no_text(string, tmp_path):
    (tmp_path / "x.txt").write_text(string, encoding="utf-8")
    assert read_text(tmp_path / "x.txt") == "one\ntwo\n"


def test_without_pythons_source_there_is_a_sentence(ws, monkeypatch, tmp_path):
    monkeypatch.setattr(corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(CourseError, match="not on this machine as source .0 characters"):
        shakespeare(ws)
