/**
 * Text as a terminal may show it: what it would obey instead (escape sequences, C1 controls, marks that turn the direction of writing) becomes `\xNN` or
 * `\u{NNNN}`. Line feeds and tabs stay. For names and messages that come from images, registries, peers and containers.
 */
export function visible(text: string): string {
  return OBEYED.test(text) ? text.replace(OBEYED_ALL, escaped) : text;
}

/** The same within JSON, where everything below a space is escaped already: `\uNNNN`, which means the same. */
export function visibleJson(json: string): string {
  return json.replace(
    OBEYED_ALL,
    (c) =>
      `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}${c.length > 1 ? `\\u${c.charCodeAt(1).toString(16)}` : ''}`,
  );
}

const OBEYED = /[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]|(?![\n\t])\p{Cc}/u;
const OBEYED_ALL = new RegExp(OBEYED, 'gu');

function escaped(c: string): string {
  const hex = c.codePointAt(0)!.toString(16);
  return hex.length <= 2 ? `\\x${hex.padStart(2, '0')}` : `\\u{${hex}}`;
}
