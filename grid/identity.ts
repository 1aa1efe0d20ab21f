import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomUUID,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto';
import {
  chmodSync,
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { base58btc } from 'multiformats/bases/base58';
import { PgError } from '../mdm/error.ts';
import { nodeDir, type Roots } from '../store/paths.ts';
import { selfSignedCertificate } from './certificate.ts';

/** Who this node is. The id is the libp2p PeerId of the key, so that libp2p can take the identity over as it is. */
export interface Identity {
  /** `12D3Koo...`: 52 characters. */
  id: string;
  /** The 32 bytes of the ed25519 public key. */
  publicKey: Uint8Array;
  privateKey: KeyObject;
  /** PKCS#8 PEM of the private key, for TLS. */
  keyPem: string;
  /** Self-signed X.509 certificate of the key, for TLS. */
  certPem: string;
}

/**
 * libp2p's PublicKey message for an ed25519 key: protobuf field 1 (Type) = 1, field 2 (Data) = the 32 bytes; as the key is short,
 * the PeerId is its identity multihash (code 0, length 36). libp2p specs, peer-ids/peer-ids.md.
 */
const PEER_ID_PREFIX = Buffer.from([0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
/** The DER before the 32 key bytes in an ed25519 SubjectPublicKeyInfo (RFC 8410 section 4). */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const KEY_BYTES = 32;

/** The node id of a 32-byte ed25519 public key. */
export function idOfPublicKey(publicKey: Uint8Array): string {
  return base58btc.encode(Buffer.concat([PEER_ID_PREFIX, publicKey])).slice(1);
}

/** The 32-byte public key in a node id; BAD_NODE_ID when the text is no PeerId of an ed25519 key. */
export function publicKeyOfId(id: string): Uint8Array {
  let bytes: Uint8Array | undefined;
  try {
    bytes = base58btc.decode(`z${id}`);
  } catch {
    // Not base58 at all: reported below as every other malformed id is.
  }
  const good =
    bytes?.length === PEER_ID_PREFIX.length + KEY_BYTES &&
    PEER_ID_PREFIX.equals(bytes.subarray(0, PEER_ID_PREFIX.length));
  if (!good) {
    throw new PgError('BAD_NODE_ID', `'${id.slice(0, 80)}' is not a node id`, {
      hint: "node ids begin with 12D3Koo; 'pg node id' on the other host prints its own",
    });
  }
  return bytes!.subarray(PEER_ID_PREFIX.length);
}

/** The node id of a key object, or undefined when it is not an ed25519 key. */
export function idOfKey(key: KeyObject | undefined): string | undefined {
  if (key?.asymmetricKeyType !== 'ed25519') return undefined;
  const spki = key.export({ type: 'spki', format: 'der' });
  return idOfPublicKey(spki.subarray(spki.length - KEY_BYTES));
}

/** Signs `bytes` as this node (64 bytes, RFC 8032 Ed25519). */
export function signAs(identity: Identity, bytes: Uint8Array): Uint8Array {
  return sign(null, bytes, identity.privateKey);
}

/** Whether `signature` over `bytes` was made by the node `id`. */
export function signedBy(id: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const spki = Buffer.concat([SPKI_PREFIX, publicKeyOfId(id)]);
  return verify(null, bytes, createPublicKey({ key: spki, format: 'der', type: 'spki' }), signature);
}

/** Writes `bytes` to a new file that only the owner reads, synced; then gives it its name, unless another process was first. */
function createPrivate(path: string, bytes: string): void {
  const temporary = `${path}.${randomUUID()}`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeSync(fd, bytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  try {
    linkSync(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
}

/**
 * This node's identity; made on first use (`<data>/node/key.pem`, mode 0600), the same ever after.
 * Errors: KEY_READABLE when others than the owner can read the key, BAD_KEY when the file is not an ed25519 key.
 */
export function loadIdentity(roots: Roots): Identity {
  const dir = nodeDir(roots);
  const path = join(dir, 'key.pem');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  let keyPem = readIfThere(path);
  if (keyPem === undefined) {
    chmodSync(dir, 0o700);
    createPrivate(path, generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
    keyPem = readFileSync(path, 'utf8');
  }
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new PgError('KEY_READABLE', `the node's private key ${path} can be read by others`, {
      hint: `chmod 600 ${path}`,
    });
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(keyPem);
  } catch (cause) {
    throw new PgError('BAD_KEY', `${path} is not a PKCS#8 private key`, { cause });
  }
  const publicKeyObject = createPublicKey(keyPem);
  const id = idOfKey(publicKeyObject);
  if (id === undefined) throw new PgError('BAD_KEY', `${path} is not an ed25519 key`);
  const spki = publicKeyObject.export({ type: 'spki', format: 'der' });
  const certPem = selfSignedCertificate(id, privateKey, spki);
  return { id, publicKey: publicKeyOfId(id), privateKey, keyPem, certPem };
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
