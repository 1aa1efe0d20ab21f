import { Args } from '@oclif/core';
import { addPeer, formatAddress } from '../../../grid/peers.ts';
import { PgCommand } from '../../base.ts';

export default class PeerAdd extends PgCommand {
  static override summary = 'Make another node known to this one, so that containers can move between them.';
  static override description =
    'Both nodes must know each other. What `pg node id` prints on the other host is what goes here. Given again with the same name and id, the address is replaced.\n\nA known peer may move containers here, and they run with the options that they were given there: trust it as you trust root on this host.';
  static override examples = [
    '<%= config.bin %> peer add node-b 192.0.2.7:7411 12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq',
    '<%= config.bin %> peer add node-b [2001:db8::7] 12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq',
  ];
  static override args = {
    NAME: Args.string({ required: true, description: 'what to call the node here' }),
    ADDRESS: Args.string({ required: true, description: 'HOST:PORT of its daemon; the port is 7411 if left out' }),
    ID: Args.string({ required: true, description: "its id, from 'pg node id' there" }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(PeerAdd);
    const peer = addPeer(this.roots(flags), args.NAME, args.ADDRESS, args.ID);
    process.stdout.write(`${peer.name}: ${peer.id} at ${formatAddress(peer)}\n`);
  }
}
