import { bytesOf, decodeEnvelope, encodeEnvelope, textOf, uintOf } from '../grid/envelope.ts';
import { signAs, signedBy, type Identity } from '../grid/identity.ts';
import { PgError } from '../mdm/error.ts';
import type { SignedRelease } from './migrate-state.ts';

/**
 * A release: the owner of a container says that from `epoch` on it belongs to node `to`, as it is at `size` and `root`. It is a grid envelope
 * signed by the owner, kept by both: durable at the one who gives it before the other may act on it.
 */
export interface Release {
  container: string;
  /** The epoch that begins with it. */
  epoch: number;
  /** The log at the hand-over. */
  size: number;
  root: Uint8Array;
  /** Node ids. */
  from: string;
  to: string;
}

/** Signs a release as this node, which must be its `from`. */
export function signRelease(identity: Identity, release: Omit<Release, 'from'>): SignedRelease {
  const body = { ...release, from: identity.id };
  const envelope = encodeEnvelope({ protocol: 'migrate', type: 'request', id: 0, name: 'release', body });
  return {
    envelope: Buffer.from(envelope).toString('base64'),
    signature: Buffer.from(signAs(identity, envelope)).toString('base64'),
  };
}

/** The release in `signed`; BAD_RELEASE unless it is one, and signed by the node that it names as the giver. */
export function openRelease(signed: SignedRelease): Release {
  const bytes = Buffer.from(signed.envelope, 'base64');
  const { protocol, name, body } = decodeEnvelope(bytes);
  if (protocol !== 'migrate' || name !== 'release')
    throw new PgError('BAD_RELEASE', 'what was handed over is no release');
  const release: Release = {
    container: textOf(body, 'container'),
    epoch: uintOf(body, 'epoch'),
    size: uintOf(body, 'size'),
    root: bytesOf(body, 'root', 32),
    from: textOf(body, 'from'),
    to: textOf(body, 'to'),
  };
  if (!signedBy(release.from, bytes, Buffer.from(signed.signature, 'base64'))) {
    throw new PgError('BAD_RELEASE', 'a release that its giver did not sign');
  }
  return release;
}
