"""Runs the blocks of docs/query.md in order, and says what each answered.

  query.py PAGE      in a folder with `bucket`, and `tidemark` on the PATH: {heading: answer of the last block below it}

Blocks of sh, sql and python count. SQL answers with the rows of its last statement, Python with its last expression.
"""

import ast
import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb

BLOCK = re.compile(r"^## (?P<heading>.+?)$|^```(?P<kind>sh|sql|python)\n(?P<code>.*?)^```$", re.M | re.S)


def run_sql(connection, code):
    connection.execute(code)
    return connection.fetchall() if connection.description else None


def run_python(names, code):
    *statements, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        return exec(code, names)
    exec(compile(ast.Module(statements, []), "page", "exec"), names)
    answer = eval(compile(ast.Expression(last.value), "page", "eval"), names)
    return answer.to_pylist() if hasattr(answer, "to_pylist") else answer


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    raise TypeError(type(value))


def main(page):
    connection, names, answers, heading = duckdb.connect(), {}, {}, ""
    for found in BLOCK.finditer(Path(page).read_text()):
        heading = found["heading"] or heading
        match found["kind"]:
            case "sh":
                answers[heading] = subprocess.run(["sh", "-e", "-c", found["code"]], check=True) and None
            case "sql":
                answers[heading] = run_sql(connection, found["code"])
            case "python":
                answers[heading] = run_python(names, found["code"])
    print(json.dumps(answers, default=plain))


main(*sys.argv[1:])
