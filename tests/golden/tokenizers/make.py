#!/usr/bin/env python3
"""Makes the golden files beside it: per pre-tokenizer a small byte-level BPE, trained on a Unicode torture corpus
with Hugging Face `tokenizers` (made with 0.23.3), its words and its ids for every line.

    pip install tokenizers && tests/golden/tokenizers/make.py [--random N SEED] [OUT]

--random N SEED: N random lines instead of the corpus, for a wider check (not committed).
The expressions are those of each family's tokenizer.json. Code points assigned after Unicode 14 are left out:
PCRE2 10.42 does not know them (docs/tokenizers.md)."""
import argparse
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}"
         r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}"
         r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}"
         r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}"
         r"\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}"
         r"\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}"
         r"\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}"
         r"\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}"
         r"\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}"
         r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}"
         r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}"
         r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}"
         r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}")
CJK = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+"


def split(*expressions):
    return [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions]


DIGITS = pre_tokenizers.Digits(individual_digits=True)
KINDS = {
    # llama.cpp's own mixture for files that name no family
    "default": split(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": split(GPT2),
    "smollm": [DIGITS] + split(GPT2),
    "falcon": [pre_tokenizers.Punctuation("contiguous")] + split(GPT2, "[0-9][0-9][0-9]"),
    "llama-bpe": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                       r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "qwen2": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                   r"|\s+(?!\S)|\s+"),
    "qwen35": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "tekken": split(rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "gpt-4o": split(rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?"
                    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "deepseek-llm": split("[\r\n]", rf"\s?[{CASED}]+", r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+", r"\s+$", CJK) + [DIGITS],
    "deepseek-coder": split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK) + [DIGITS],
    "deepseek-v3": split(r"\p{N}{1,3}", r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
                         r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
                         r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
}
IGNORE_MERGES = {"llama-bpe", "tekken"}

CORPUS = [
    "Hello, world! The quick brown fox jumps over the lazy dog; the dog doesn't care, and the fox knows it.",
    "I'm you're he'LL they'Ve it'S wE'D isn'T 'tis o'clock rock'n'roll '' 's 'sam 'TIS",
    "'\u017f long s, it'\u017fo '\u212a kelvin \u212a \u2126 \u1e9e \ufb06 \ufb00",
    "0 1 12 123 1234 12345 123456 1,234,567.89 3.14e-10 0x1F \u0663\u0664\u0665\u0666 \u0967\u0968 \uff11\uff12\uff13\uff14",
    "\u00b2\u00b3\u00b9\u00bd\u00be x\u00b2+y\u00b3 \u2160\u2161\u216b \u2460\u2473 \u3021\u3029 \u0f33 \U0001d7d8\U0001d7ff \u4e00\u4e8c\u4e09",
    "  two   three    four     \t\ttabs \t mixed\t \t end   ",
    "line\nline\r\nline\r\rline\n\n\nafter\n \n  \n\t\nx\r\n\r\n  y",
    " \n leading", "trailing \n", "\n", " ", "  ", "\t", "\r\n", "   \n   ", "a", "", "\n\n \n", "x \n\n  y  ",
    "nbsp\u00a0x em\u2003x ideo\u3000x nel\u0085x ls\u2028x ps\u2029x ogham\u1680x nnbsp\u202fx mmsp\u205fx \u00a0\u00a0 \u2003\u2003y",
    "mongolian\u180evowel zero\u200bwidth word\u2060joiner bom\ufeffx \u180e \u180e\u180ea zwnj\u200cx zwj\u200dx",
    "controls \x01\x02\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x80\x9f tail\x0b\x0bx \x0c\x0cy soft\u00adhyphen",
    "HTTPServer getHTTPResponseCode iPhone McDonald camelCaseXML ABCdef abcDEF A Aa aA AAAaaaAAA \u01c5ungla \u01c8\u01cb",
    "def f(x, *args, **kw):\n    return {k: v for k, v in kw.items() if k != 'a'}  # comment\n\n\nclass A:\n\tpass\n",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", a[i]->b ? 1 : -1); return 0; } // end/*x*/\n///\n",
    "<|im_start|>user\n<tool_call>{\"name\": \"f\"}</tool_call><|im_end|>\n[INST] <<SYS>> </s><s> <0x0A>",
    "https://example.org/a/b?c=d&e=f#g user@mail.example ~/path/to/file.txt C:\\dir\\file //// /\n/\r\n...!!!???\u2026\u203d",
    "$5.00 \u20ac10 \u00a33 \u00a57 \u20b9100 50% 50\u2030 \u00b110 \u2260 \u2264 \u221e \u2211 \u222b \u2202 a+b=c<d>e^f|g~h`i` \u00ac\u00a6\u00a8\u00af\u00b4\u00b8",
    "\u201cquotes\u201d \u2018single\u2019 \u00abguillemets\u00bb \u2014dash\u2014 \u2013 \u2012 it\u2019s don\u2019t \u300c\u62ec\u5f27\u300d \uff08\uff09\uff01\uff1f\u3001\u3002\uff0c",
    "Na\u00efve caf\u00e9 r\u00e9sum\u00e9 \u00fcber \u00c4pfel \u00d8re stra\u00dfe \u0141\u00f3d\u017a \u010cesk\u00fd \u0130stanbul \u0131\u011fd\u0131r \u01a0\u01b0",
    "e\u0301a\u0308o\u0302 \u0301 \u0301\u0301x x\u0301\u0302\u0303 \u0e01\u0e33\u0e49 a\u20dd \u0915\u094d\u0937\u093f z\u0351\u036b\u0343a\u0334\u0335l\u0321g\u0322o\u0489",
    "\u0417\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439, \u043c\u0438\u0440! \u041f\u0440\u0438\u0432\u0435\u0442 \u041c\u041e\u0421\u041a\u0412\u0410 \u0457\u0436\u0430\u043a \u0436\u0454 \u0462 \u0524",
    "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5 \u1f00\u03c1\u03c7\u03ae \u1fb3\u1fbc \u03a3\u03c2\u03c3 \u0370\u0371\u037f \u03f6",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u662f\u4e00\u4e2a\u5b66\u751f\u30022024\u5e741\u67081\u65e5 abc\u4e2d\u6587def \u9fa5\u9fa6\u9fef \u3400\u4dbf \U00020000\U0002a6d6",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c \u30ab\u30bf\u30ab\u30ca\u30fc \uff76\uff9e\uff77 \u3042\u309b\u309c\u30fd\u30fe\u3005\u303b \u6771\u4eac\u30bf\u30ef\u30fc\u306f333m\u3067\u3059",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \u1112\u1161\u11ab\u1100\u1173\u11af \ud7a3\ud7b0\ud7fb \u3131\u318e",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641\u061f \u0627\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u064e\u0651\u0629 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05f3",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u09ac\u09be\u0982\u09b2\u09be \u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0c24\u0c46\u0c32\u0c41\u0c17\u0c41 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u1c92\u1ca2 \u0540\u0561\u0575 \u12a0\u121b\u122d\u129b \u1780\u17d2\u1798\u17c2\u179a \u13a0\u13b4\uab70 \u2c00\u2c30 \U00010400\U00010428 \U0001e900\U0001e922",
    "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1fa\U0001f1f3 \u2764\ufe0f 1\ufe0f\u20e3 \u2600\u2602\U0001f680x \U0001f916\U0001f916",
    "private \ue000\uf8ff\U000f0000\U0010fffd unassigned \u0378\u0379 nonchar \ufdd0\ufffe\uffff\U0001ffff replacement \ufffd\ufffd tags \U000e0041\U000e007f",
    "\u02b0\u02b9\u02c7 modifier \u02c8stress \u1d2c\u1d43 \u2071\u207f \u2090 \ua788\ua717 \u00aa\u00ba \u01bb\u01c0\u0294 \u2183\u2184 \u2188 \u3007",
    "a\u00a0\n\u2003\r\nb \u2028\u2029\n c\u3000 \u3000d  \u00a0 e\u0085\u0085f \u0085g \x1ch",
    "war and peace and war and peace and the the the there then them these those that this with without within",
]


def random_lines(count, seed):
    """Lines of random code points, biased to what the expressions tell apart."""
    rng = random.Random(seed)
    pool = [chr(c) for c in range(0x110000)
            if not 0xd800 <= c < 0xe000 and unicodedata.category(chr(c)) != "Cn"]
    by_category = {}
    for c in pool:
        by_category.setdefault(unicodedata.category(c), []).append(c)
    common = list("aabcdestrvmlADSTRVML''''0123  \n\r\t.,/!\u00a0\u0301\u4e2d\u3042\uac00") + ["  ", "'s", "\u017f", "\u180e"]
    lines = []
    for _ in range(count):
        line = []
        for _ in range(rng.randrange(1, 40)):
            way = rng.random()
            if way < 0.6:
                line.append(rng.choice(common))
            elif way < 0.9:
                line.append(rng.choice(by_category[rng.choice(sorted(by_category))]))
            else:
                line.append(chr(rng.randrange(0x20, 0x250)))
        lines.append("".join(line))
    return lines


def make(name, steps, lines):
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in IGNORE_MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=256 + 160, min_frequency=2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(lines, trainer)
    vocab = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {
        "pre": name,
        "tokens": " ".join(sorted(vocab, key=vocab.get)),
        "merges": [m if isinstance(m, str) else " ".join(m) for m in merges],
        # after the byte-level map one character is one byte
        "words": [[len(piece) for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(line)] for line in lines],
        "ids": [tokenizer.encode(line, add_special_tokens=False).ids for line in lines],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", default=HERE, type=pathlib.Path)
    parser.add_argument("--random", nargs=2, type=int)
    arguments = parser.parse_args()
    lines = random_lines(*arguments.random) if arguments.random else CORPUS
    write = {"corpus": lines} | {name: make(name, steps, lines) for name, steps in KINDS.items()}
    for name, content in write.items():
        text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
        (arguments.out / f"{name}.json").write_text(text + "\n", encoding="ascii")
    print(f"{len(write)} files in {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
