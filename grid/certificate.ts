import { sign, type KeyObject } from 'node:crypto';

/**
 * A self-signed X.509 v3 certificate for an ed25519 key: the wrapping that TLS wants around a node's public key.
 *
 * Nobody reads anything but the key out of it (peers are pinned by key, see `identity.ts`), so it carries the node id as its name, no
 * extension, and the "no expiry" date of RFC 5280 4.1.2.5. The encoding has one fixed form (RFC 5280 4.1, RFC 8410): forty lines of
 * DER, against thirty packages of a library that makes every kind.
 */

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OBJECT_ID = 0x06;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;
const EXPLICIT_0 = 0xa0;

/** id-Ed25519, 1.3.101.112 (RFC 8410 section 3): parameters are absent. */
const ED25519 = der(SEQUENCE, der(OBJECT_ID, Buffer.from([0x2b, 0x65, 0x70])));
/** id-at-commonName, 2.5.4.3. */
const COMMON_NAME = der(OBJECT_ID, Buffer.from([0x55, 0x04, 0x03]));

/** One DER value: tag, length in the shortest form (X.690 10.1), contents. */
function der(tag: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  const short = length.subarray(length.findIndex((byte) => byte !== 0));
  return Buffer.concat([Buffer.from([tag, 0x80 | short.length]), short, body]);
}

/**
 * The certificate as PEM.
 * @param commonName the node's id; ASCII, at most 64 bytes (ub-common-name)
 * @param privateKey the ed25519 key that signs
 * @param spki its public key as DER SubjectPublicKeyInfo
 */
export function selfSignedCertificate(commonName: string, privateKey: KeyObject, spki: Uint8Array): string {
  const name = der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8_STRING, Buffer.from(commonName)))));
  const validity = der(
    SEQUENCE,
    der(UTC_TIME, Buffer.from('200101000000Z')),
    der(GENERALIZED_TIME, Buffer.from('99991231235959Z')),
  );
  const version3 = der(EXPLICIT_0, der(INTEGER, Buffer.from([2])));
  const serial = der(INTEGER, Buffer.from([1]));
  const toBeSigned = der(SEQUENCE, version3, serial, ED25519, name, validity, name, spki);
  const signature = sign(null, toBeSigned, privateKey);
  const certificate = der(SEQUENCE, toBeSigned, ED25519, der(BIT_STRING, Buffer.from([0]), signature));
  const base64 = certificate.toString('base64').replace(/.{64}(?=.)/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
}
