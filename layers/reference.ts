/**
 * Image names as Docker reads and writes them (distribution/reference: grammar in reference.go, shortening in
 * normalize.go).
 *
 *     reference  = name [ ":" tag ] [ "@" digest ]        name = [ domain "/" ] path
 *
 * `nginx` is short for `docker.io/library/nginx:latest`; `me/app` for `docker.io/me/app:latest`; what stands before the
 * first `/` is a domain only when it has a dot, a port or capital letters, or is `localhost`.
 */
import { PgError } from '../mdm/error.ts';
import { isDigest } from './transport/digest.ts';

/** A name taken apart and normalised. With neither tag nor digest it names a repository. */
export interface Reference {
  /** Host and port of the registry: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  domain: string;
  /** Repository within it: `library/nginx`. */
  path: string;
  tag?: string;
  /** `sha256:hex`. Where both are given, the digest says which image it is. */
  digest?: string;
}

export const DEFAULT_DOMAIN = 'docker.io';
const DEFAULT_NAMESPACE = 'library';
const DEFAULT_TAG = 'latest';
/** reference.go, NameTotalLengthMax (characters of domain and path together). */
const NAME_LENGTH_MAX = 255;

const DOMAIN_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = new RegExp(`^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
/** No two runs of the pattern can match the same characters in two ways: linear time on hostile names. */
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const IDENTIFIER = /^[a-f0-9]{64}$/;

/**
 * Reads `text` as Docker's command line does and fills in domain and namespace, not the tag.
 * Throws REFERENCE_INVALID, saying which part is wrong.
 */
export function parseReference(text: string): Reference {
  if (text === '') throw invalid(text, 'it is empty');
  if (IDENTIFIER.test(text)) throw invalid(text, 'it is a 64-digit identifier, which cannot be a name');
  const [beforeDigest, digest] = splitDigest(text);
  const [name, tag] = splitTag(beforeDigest);
  if (digest !== undefined && !isDigest(digest))
    throw invalid(text, `'${digest}' is not a digest (sha256:64 hex digits)`);
  if (tag !== undefined && !TAG.test(tag)) {
    throw invalid(text, `the tag '${tag}' is not 1 to 128 of A-Z a-z 0-9 _ . - beginning with a letter, digit or _`);
  }
  const { domain, path } = splitDomain(name);
  if (!DOMAIN.test(domain)) throw invalid(text, `'${domain}' is not a host name`);
  for (const component of path.split('/')) {
    if (PATH_COMPONENT.test(component)) continue;
    if (PATH_COMPONENT.test(component.toLowerCase())) throw invalid(text, 'repository names are lower case');
    throw invalid(text, `'${component}' is not a name of a-z 0-9 with single . _ or - between`);
  }
  if (domain.length + 1 + path.length > NAME_LENGTH_MAX)
    throw invalid(text, `it is longer than ${NAME_LENGTH_MAX} characters`);
  return { domain, path, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) };
}

/** The same, with tag `latest` where neither tag nor digest is given: what one image is called. */
export function parseImageName(text: string): Reference {
  const reference = parseReference(text);
  if (reference.tag === undefined && reference.digest === undefined) reference.tag = DEFAULT_TAG;
  return reference;
}

/** Written out in full: `docker.io/library/nginx:latest`. Parses to the same reference again. */
export function formatReference(reference: Reference): string {
  return repositoryName(reference) + suffix(reference);
}

/** As short as Docker writes it: `nginx:latest`. Parses to the same reference again. */
export function familiarReference(reference: Reference): string {
  return familiarRepository(reference) + suffix(reference);
}

/** `docker.io/library/nginx`, without tag and digest. */
export function repositoryName({ domain, path }: Reference): string {
  return `${domain}/${path}`;
}

/** `nginx`, without tag and digest. */
export function familiarRepository({ domain, path }: Reference): string {
  if (domain !== DEFAULT_DOMAIN) return `${domain}/${path}`;
  const short = path.startsWith(`${DEFAULT_NAMESPACE}/`) ? path.slice(DEFAULT_NAMESPACE.length + 1) : path;
  // docker.io/library/a/b must not come back as a/b, and docker.io/localhost/x not as the host localhost.
  if (short !== path && short.includes('/')) return path;
  return isDomain(short.split('/')[0] ?? '') && short.includes('/') ? `${domain}/${path}` : short;
}

function suffix({ tag, digest }: Reference): string {
  return (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
}

function splitDigest(text: string): [string, string | undefined] {
  const at = text.indexOf('@');
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function splitTag(text: string): [string, string | undefined] {
  const colon = text.lastIndexOf(':');
  // A colon before the last slash belongs to a port.
  return colon < 0 || colon < text.lastIndexOf('/') ? [text, undefined] : [text.slice(0, colon), text.slice(colon + 1)];
}

/** normalize.go, splitDockerDomain. */
function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  let domain = DEFAULT_DOMAIN;
  let path = name;
  if (slash >= 0 && isDomain(first)) [domain, path] = [first, name.slice(slash + 1)];
  if (domain === 'index.docker.io') domain = DEFAULT_DOMAIN;
  if (domain === DEFAULT_DOMAIN && !path.includes('/')) path = `${DEFAULT_NAMESPACE}/${path}`;
  return { domain, path };
}

function isDomain(first: string): boolean {
  return /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
}

function invalid(text: string, why: string): PgError {
  const shown = text.length > 300 ? `${text.slice(0, 300)}...` : text;
  return new PgError('REFERENCE_INVALID', `'${shown}' is not an image name: ${why}`, {
    hint: 'an image name is [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST], for example nginx:latest',
  });
}
