import assert from 'node:assert/strict';
import fc from 'fast-check';
import { fromErrorData, PgError } from '../../mdm/error.ts';
import { visible, visibleJson } from '../../mdm/visible.ts';

const OBEYED = /[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]|(?![\n\t])\p{Cc}/u;

describe('text for terminals', () => {
  it('has nothing that a terminal would obey', () => {
    assert.equal(visible('\x1b]0;owned\x07 \x9b2J'), '\\x1b]0;owned\\x07 \\x9b2J');
    assert.equal(visible('gnp.\u202egpj\u2066'), 'gnp.\\u{202e}gpj\\u{2066}');
    assert.equal(visible('a\r\b\x7f'), 'a\\x0d\\x08\\x7f');
    assert.equal(visible('schön 日本 🙂\n\ttwo lines'), 'schön 日本 🙂\n\ttwo lines');
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !OBEYED.test(visible(text))));
  });

  it('is the same JSON', () => {
    const value = { a: '\x1b[31m', b: '\x9b\u202e\u{e0001}', '\x7f': 1 };
    const json = visibleJson(JSON.stringify(value));
    assert.deepEqual(JSON.parse(json), value);
    assert.ok(!OBEYED.test(json), json);
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' })), (any) => {
        assert.deepEqual(JSON.parse(visibleJson(JSON.stringify(any))), JSON.parse(JSON.stringify(any)));
      }),
    );
  });

  it('is what every error has, also one that came from elsewhere', () => {
    const evil = 'no such file: \x1b[2J\x9b';
    for (const error of [
      new PgError('X', evil, { hint: evil }),
      fromErrorData({ code: 'X', message: evil, hint: evil }),
    ])
      for (const text of [error.message, error.hint!]) assert.equal(text, 'no such file: \\x1b[2J\\x9b');
  });
});
