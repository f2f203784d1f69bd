#!/usr/bin/env python3
"""Makes schemas.json: JSON schemas, JSON texts, and whether each text fits, as the Python package jsonschema says.

    pip install jsonschema rfc3339-validator     # any recent version
    python make.py                               # rewrites schemas.json beside this file

A text that fits must be one the grammar generates, so objects keep the schema's order of properties and have no
property that the schema does not name, unless additionalProperties allows it (the grammar is stricter there)."""
import json
import pathlib

import jsonschema

HERE = pathlib.Path(__file__).resolve().parent

CASES = [
    ({"type": "integer"}, ["0", "-7", "12", "1.5", '"1"', "01", "+1"]),
    ({"type": "number"}, ["0", "-0.25", "1e9", "1E-3", "1.", ".5", "nan", "true"]),
    ({"type": ["string", "null"]}, ['"a"', "null", "1", '""']),
    ({"enum": ["a", 1, None, {"k": [1, 2]}]}, ['"a"', "1", "null", '{"k":[1,2]}', '"b"', "2"]),
    ({"const": 'quote " and \\ back'}, [json.dumps('quote " and \\ back'), '"quote"']),
    ({"type": "integer", "minimum": 0}, ["0", "5", "-1", "123456"]),
    ({"type": "integer", "minimum": -12, "maximum": 345},
     ["-13", "-12", "-9", "-1", "0", "9", "10", "99", "100", "344", "345", "346", "1000"]),
    ({"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 100}, ["9", "10", "55", "99", "100"]),
    ({"type": "integer", "maximum": -7}, ["-7", "-8", "-6", "0", "-70", "7"]),
    ({"type": "number", "minimum": 0}, ["0", "0.5", "-0.5", "3.25", "-1"]),
    ({"type": "number", "minimum": -2, "maximum": 3}, ["-2", "-2.5", "-2.0", "-1.5", "-0.5", "0", "2.99", "3", "3.0", "3.1"]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0", "0.0", "0.001", "1", "1.0", "1.5", "-0.5"]),
    ({"type": "string", "minLength": 2, "maxLength": 4}, ['"a"', '"ab"', '"abcd"', '"abcde"', '"\u00e9\u6771"', '"\\n\\t"']),
    ({"type": "string", "pattern": r"^\d{3}-\w+$"}, ['"123-ab_9"', '"12-ab"', '"123-"', '"123-a b"']),
    ({"type": "string", "pattern": r"^[^\s\"]+(\.[a-z]{2,3})?$"}, ['"ab.com"', '"a b"', '"a\\"b"', '"x"', '""']),
    ({"type": "string", "pattern": "b+"}, ['"abc"', '"b"', '"ac"', '"xbbx"']),
    ({"type": "string", "pattern": "^(foo|ba[rz])?$"}, ['"foo"', '"bar"', '"baz"', '"bat"', '""', '"fo"']),
    ({"type": "string", "pattern": r"^a\\b\/c\t$"}, [json.dumps("a\\b/c\t"), json.dumps("ab/c")]),
    ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"', '"xay"', '"cc"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2024-13-01"', '"24-01-01"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"', '"256.1.1.1"', '"1.2.3"']),
    ({"type": "string", "format": "uuid"}, ['"01234567-89ab-cdef-0123-456789abcdef"', '"0123"']),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a", "b"],
      "additionalProperties": False},
     ['{"a":1,"b":"x"}', '{ "a": 1, "b": "x" }', '{"a":1}', '{"b":"x"}', '{"a":"x","b":"x"}', '{"a":1,"b":"x","c":1}', "{}"]),
    ({"type": "object", "properties": {"a": {}, "b": {"type": "null"}, "c": {"type": "boolean"}}, "required": ["b"],
      "additionalProperties": False},
     ['{"b":null}', '{"a":[1],"b":null}', '{"b":null,"c":true}', '{"a":{},"b":null,"c":false}', '{"a":1,"c":true}', "{}"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "additionalProperties": False},
     ["{}", '{"a":1}', '{"b":2}', '{"a":1,"b":2}', '{"a":1,}']),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, ["{}", '{"x":1}', '{"x":1,"y":2}', '{"x":"1"}']),
    ({"type": "object", "properties": {"ab": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
     ['{"ab":1}', '{"ab":1,"a":"x"}', '{"abc":"x"}', '{"b":"x","c":"y"}', '{"ab":"x"}', '{"c":1}']),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, ["[]", "[1]", "[1,2,3]", "[1,2,3,4]", '["a"]']),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 1},
     ["[]", "[1]", '[1,"a"]', '[1,"a",2]', '["a"]']),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"}, "minItems": 2},
     ["[1]", "[1,true]", "[1,true,false]", "[true,true]"]),
    ({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"],
                                      "additionalProperties": False}]}, ["1", '{"x":2}', '{"y":2}', '"a"']),
    ({"type": "object", "anyOf": [{"properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False},
                                  {"properties": {"y": {"type": "integer"}}, "required": ["y"], "additionalProperties": False}]},
     ['{"x":1}', '{"y":1}', "{}", '{"z":1}']),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]}, ['{"a":1,"b":2}', '{"a":1}', '{"b":1}']),
    ({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
        "v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["v", "next"], "additionalProperties": False}}},
     ['{"v":1,"next":null}', '{"v":1,"next":{"v":2,"next":null}}', '{"v":1}', '{"v":1,"next":{"v":2}}']),
    ({"type": "object", "properties": {"t": {"type": "array", "items": {"$ref": "#"}}}, "additionalProperties": False},
     ["{}", '{"t":[]}', '{"t":[{},{"t":[{}]}]}', '{"t":[1]}']),
    (True, ["1", "{}", '[null,{"a":"b"}]', "tru", '"x']),
]


def fits(schema, text):
    try:
        value = json.loads(text, parse_constant=lambda c: (_ for _ in ()).throw(ValueError(c)))
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).is_valid(value)


def main():
    out = [{"schema": schema, "texts": [{"text": t, "fits": fits(schema, t)} for t in texts]} for schema, texts in CASES]
    (HERE / "schemas.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
