import { constants } from 'node:crypto';
import type { SecureContextOptions, TLSSocket } from 'node:tls';
import { idOfKey, type Identity } from './identity.ts';

/** What the two sides of a connection agree on in TLS (ALPN): a door through which another transport of the same node can come later. */
export const ALPN = 'pg/1';
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * The TLS settings of both sides: 1.3 only, ed25519 only, mutual. Certificates are not checked against any authority: the caller
 * compares the key with the known peer's (`presentedId`); that the other side holds its private half is proved by the handshake
 * itself (RFC 8446 4.4.3). No tickets and no resumption: a resumed session has no peer certificate in Node.
 */
export function tlsOptions(
  identity: Identity,
): SecureContextOptions & { rejectUnauthorized: false; ALPNProtocols: string[] } {
  return {
    key: identity.keyPem,
    cert: identity.certPem,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    sigalgs: 'ed25519',
    ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256',
    secureOptions: constants.SSL_OP_NO_TICKET,
    rejectUnauthorized: false,
    ALPNProtocols: [ALPN],
  };
}

/** The node id of the key that the other side presented and proved; undefined when it presented none, or resumed a session. */
export function presentedId(socket: TLSSocket): string | undefined {
  if (socket.isSessionReused() || socket.getProtocol() !== 'TLSv1.3') return undefined;
  return idOfKey(socket.getPeerX509Certificate()?.publicKey);
}
