/**
 * JSON as documents of images are to be: what two readers could read in two ways is refused. Go's encoding/json, which docker and podman read with, takes
 * the last of two members of one name but merges objects, and does not tell `layers` from `Layers` (RFC 8259 section 4 leaves all of it open); whoever checks
 * a manifest must not see another image than whoever runs it.
 */

/** Go stops at 10,000; no document of an image has more than ten. Deep enough, printing what was read overflows the stack. */
const DEPTH_MAX = 100;
/** Members that Go reads in any case of letters, in lower case. */
const FIELDS = new Set(
  (
    'schemaversion mediatype manifests layers config digest size urls annotations platform os architecture variant rootfs type diff_ids history created author ' +
    'user exposedports env entrypoint cmd volumes workingdir labels stopsignal repotags imagelayoutversion artifacttype subject data'
  ).split(' '),
);
/** Members whose value is a table of names that people choose. */
const FREE = new Set(['annotations', 'labels']);

interface Frame {
  /** Names of an object's members so far; null for a list. */
  names: Set<string> | null;
  /** Names are people's own: they differ as soon as a letter does. */
  isFree: boolean;
}

/** As JSON.parse of UTF-8 bytes. SyntaxError, TypeError, and RangeError for what only this reader refuses; each says what is wrong. */
export function parseStrictJson(bytes: Uint8Array): unknown {
  const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  const value: unknown = JSON.parse(text);
  checkMembers(text);
  return value;
}

/** Goes over text that is known to be JSON. */
function checkMembers(text: string): void {
  const stack: Frame[] = [];
  let name = '';
  // Strings, and what opens and closes; numbers and words are of no interest.
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        if (stack.length === DEPTH_MAX)
          throw new RangeError(`its parts are more than ${DEPTH_MAX} deep within one another`);
        stack.push({
          names: text[at] === '{' ? new Set() : null,
          isFree: FREE.has(name.toLowerCase()) && stack.at(-1)?.isFree !== true,
        });
        name = '';
        break;
      case 0x7d: // }
      case 0x5d: // ]
        stack.pop();
        break;
      case 0x22: {
        const end = endOfString(text, at);
        if (isName(text, end)) {
          name = JSON.parse(text.slice(at, end)) as string;
          addName(stack.at(-1)!, name);
        }
        at = end - 1;
      }
    }
  }
}

/** Behind the closing quote of the string that begins at `at`. */
function endOfString(text: string, at: number): number {
  let end = at + 1;
  for (let c = text.charCodeAt(end); c !== 0x22; c = text.charCodeAt(end)) end += c === 0x5c ? 2 : 1;
  return end + 1;
}

/** Whether a colon follows. */
function isName(text: string, end: number): boolean {
  let at = end;
  while (/[ \t\r\n]/.test(text[at] ?? '')) at++;
  return text[at] === ':';
}

function addName({ names, isFree }: Frame, name: string): void {
  const lower = name.toLowerCase();
  const key = !isFree && FIELDS.has(lower) ? lower : name;
  if (names!.has(key)) throw new RangeError(`it has '${name.slice(0, 60)}' twice in one object`);
  names!.add(key);
}
