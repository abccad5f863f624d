"""A corpus of real manuals with questions whose answers are known: `python -m benchmarks.manuals [--questions 500]`.

Writes `documents/` (HTML files, to be ingested as they are), and BEIR's three files for whatever evaluates: `corpus.jsonl` (ids and paths),
`queries.jsonl`, `qrels.tsv`; `questions.jsonl` has the answers as well. Debian's packages are unpacked below .tools/debian, not installed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.manual_sources import Page, Question, every

ROOT = Path(__file__).parents[1]
PACKAGES = ("python3.11-doc", "git-doc", "postgresql-doc-15", "manpages", "manpages-dev", "coreutils", "mandoc")
UNPACKED = ROOT / ".tools/debian"
OUT = ROOT / "benchmarks/out/manuals"
SHARES = {"faq": 0.3, "purpose": 0.4, "docstring": 0.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=500, help="at most so many, chosen by a hash of their ids")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    pages, questions = build(arguments.out, arguments.questions)
    kinds = Counter(question.kind for question in questions)
    print(
        f"{len(pages):,} documents ({sum(len(page.text) for page in pages) / 1e6:.0f} MB of HTML), "
        f"{len(questions)} questions: {dict(kinds)}"
    )
    print(f"in {arguments.out}")


def build(out: Path, most: int) -> tuple[list[Page], list[Question]]:
    """Writes the corpus. The same packages give the same files, whatever machine they are built on."""
    subprocess.run([ROOT / "deploy/setup.sh", "unpack", *PACKAGES], check=True)
    pages: list[Page] = []
    questions: list[Question] = []
    for more_pages, more_questions in every(UNPACKED):
        pages += more_pages
        questions += more_questions
    chosen = choose(questions, most)
    _write(out, pages, chosen)
    return pages, chosen


def choose(questions: Sequence[Question], most: int) -> list[Question]:
    """Of each kind its share, or all that there are. A hash decides, so that a longer list contains a shorter one."""
    ordered = sorted(questions, key=lambda question: hashlib.sha256(question.id.encode()).digest())
    taken: list[Question] = []
    for kind, share in SHARES.items():
        taken += [question for question in ordered if question.kind == kind][: round(most * share)]
    return sorted(taken, key=lambda question: question.id)


def load(folder: Path = OUT) -> list[Question]:
    """The questions of a corpus that was written before."""
    rows = (json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [Question(row["id"], row["kind"], row["text"], tuple(row["pages"]), row["answer"]) for row in rows]


def _write(out: Path, pages: Sequence[Page], questions: Sequence[Question]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for page in pages:
        file = out / "documents" / page.id
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page.text, encoding="utf-8")
    _lines(
        out / "corpus.jsonl",
        [{"_id": page.id, "title": page.id, "text": "", "path": f"documents/{page.id}"} for page in pages],
    )
    _lines(
        out / "queries.jsonl",
        [{"_id": each.id, "text": each.text, "metadata": {"kind": each.kind}} for each in questions],
    )
    rows = [f"{each.id}\t{page}\t1" for each in questions for page in each.pages]
    (out / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n", encoding="utf-8")
    _lines(
        out / "questions.jsonl",
        [
            {"id": each.id, "kind": each.kind, "text": each.text, "pages": each.pages, "answer": each.answer}
            for each in questions
        ],
    )


def _lines(file: Path, rows: Sequence[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
