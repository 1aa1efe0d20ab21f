import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { FRAME } from '../../runtime/control.ts';
import { dial } from '../../grid/dial.ts';
import type { Body } from '../../grid/envelope.ts';
import { addPeer, getPeer } from '../../grid/peers.ts';
import type { ProtocolName } from '../../grid/protocol.ts';
import { loadIdentity } from '../../grid/identity.ts';
import { toErrorData } from '../../mdm/error.ts';
import { getImage } from '../../layers/images.ts';
import { importImage } from '../../layers/import.ts';
import {
  execContainer,
  findContainer,
  listContainers,
  removeContainer,
  startContainer,
  stopContainer,
} from '../../runtime/containers.ts';
import { createContainer, type CreateOptions } from '../../runtime/create.ts';
import { moveOut, planMove } from '../../runtime/migrate-out.ts';
import { readOwnership } from '../../runtime/migrate-state.ts';
import { startDetached, stopNode } from '../../runtime/node-control.ts';
import { proveIn } from '../../runtime/proof.ts';
import { nodeStatus } from '../../runtime/node.ts';
import { exitWithoutTeardown } from '../../store/end-process.ts';
import { resolveRoots } from '../../store/paths.ts';
import { openStore } from '../../store/store.ts';

// Deeds on one node, which PG_ROOT names: each line of stdin is one, `{deed, verb, args}`, and gets a line `{deed, ok}` or `{deed, error}`.
exitWithoutTeardown();
const roots = resolveRoots(undefined, process.env, 0);
const quiet = { start: (): void => {}, advance: (): void => {}, done: (): void => {} };

const verbs: Record<string, (...args: never[]) => Promise<unknown>> = {
  id: async () => loadIdentity(roots).id,
  peer: async (name: string, address: string, id: string) => addPeer(roots, name, address, id),
  node: async (host: string, port: number) => startDetached(roots, { host, port }),
  'node-status': async () => nodeStatus(roots) ?? null,
  'node-stop': async () => stopNode(roots),
  async import(source: string) {
    const store = openStore(roots);
    const { image } = await importImage(store, source);
    await store.close();
    return image.names[0];
  },
  async run(imageName: string, options: CreateOptions) {
    const store = openStore(roots);
    const image = getImage(store, imageName);
    const record = await createContainer(
      roots,
      { id: image.id.replace(/^sha256:/, ''), name: imageName, treeRoot: image.treeRoot, config: image.config.config },
      options,
    );
    await store.close();
    await startContainer(roots, record.id);
    return record.id;
  },
  start: async (name: string) => (await startContainer(roots, name)) !== false,
  stop: async (name: string) => stopContainer(roots, name, { timeoutSec: 1 }),
  rm: async (name: string) => removeContainer(roots, name, { force: true }),
  async exec(name: string, command: string) {
    const output: Buffer[] = [];
    const options = { stdin: false, stdout: true, stderr: true };
    const ended = new Promise<number>((resolve, reject) => {
      const onFrame = (type: number, payload: Buffer): void => {
        if (type === FRAME.end) resolve((JSON.parse(payload.toString()) as { exitCode: number }).exitCode);
        else output.push(Buffer.from(payload));
      };
      const exec = {
        args: ['sh', '-c', command],
        tty: false,
        stdin: false,
        user: null,
        workdir: null,
        env: [],
        privileged: false,
      };
      execContainer(roots, name, exec, { onFrame, options }).catch(async (error: Error) => {
        const { state } = await findContainer(roots, name);
        error.message += ` (${JSON.stringify(state)})`;
        reject(error);
      });
    });
    const code = await ended;
    const text = Buffer.concat(output).toString();
    if (code !== 0) throw new Error(`'${command}' ended with ${code}: ${text}`);
    return text;
  },
  async ps() {
    const all = await listContainers(roots);
    return all.map(({ record, state }) => {
      const { role, epoch, settled, moving } = readOwnership(roots, record.id);
      return {
        name: record.name,
        id: record.id,
        status: state.status,
        initPid: state.initPid,
        role,
        epoch,
        settled,
        moving,
      };
    });
  },
  async position(name: string) {
    return (await findContainer(roots, name)).state.position;
  },
  async migrate(container: string, peer: string, stopTimeoutSec: number | null) {
    const signal = new AbortController().signal;
    const said: string[] = [];
    const say = (line: string): void => void said.push(line);
    const { position, startError, ...rest } = await moveOut({
      roots,
      container,
      peer,
      stopTimeoutSec,
      progress: quiet,
      signal,
      say,
    });
    const error = startError === null ? null : toErrorData(startError);
    return { ...rest, size: position.size, root: Buffer.from(position.root).toString('hex'), startError: error, said };
  },
  /** A proof of a whole file, in base64. */
  async prove(name: string, path: string) {
    const { pieces } = await proveIn(roots, name, { path, range: 'all', follow: false });
    return Buffer.concat(pieces).toString('base64');
  },
  record: async (name: string) => (await findContainer(roots, name)).record,
  /** What a web server answers, once it does. */
  async fetch(url: string) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await (await fetch(url)).text();
      } catch (error) {
        if (attempt === 50) throw error;
        await sleep(200);
      }
    }
  },
  /** One request to a peer, with a body of plain JSON. */
  async ask(peer: string, protocol: ProtocolName, name: string, body: Body) {
    const connection = await dial(roots, getPeer(roots, peer));
    const answer = await connection.request(protocol, name, body);
    return Object.keys(answer.body);
  },
  async plan(container: string, peer: string) {
    return planMove({ roots, container, peer, progress: quiet, signal: new AbortController().signal });
  },
};

async function answerTo({ deed, verb, args }: { deed: number; verb: string; args: unknown[] }): Promise<void> {
  let answer: object;
  try {
    answer = { deed, ok: (await (verbs[verb]! as (...args: unknown[]) => Promise<unknown>)(...args)) ?? null };
  } catch (error) {
    if (process.env['PG_DEBUG']) console.error(error);
    answer = { deed, error: toErrorData(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

const underWay = new Set<Promise<void>>();
for await (const line of createInterface(process.stdin)) {
  const answered = answerTo(JSON.parse(line) as Parameters<typeof answerTo>[0]);
  underWay.add(answered);
  void answered.then(() => underWay.delete(answered));
}
await Promise.all(underWay);
process.stdout.write('', () => process.exit(0));
