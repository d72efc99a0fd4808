// When an agent may grant exclusively.
import { expect, test } from 'vitest';
import { Membership } from '../../src/lease/membership.js';
import { silentLogger } from '../../src/telemetry/logger.js';
import { AgentLab, MEMBER_TTL_MS } from './agent-lab.js';

test('who has stopped being a member may not grant, whatever beat is answered afterwards', async () => {
  const lab = new AgentLab();
  const coordination = lab.coordination();
  const { incarnation } = await coordination.join({ agent: 'a', address: '' }, 1000);
  const member = { agent: 'a', address: '', leaseMsMax: 1000, incarnation };
  const membership = new Membership(member, coordination, MEMBER_TTL_MS, lab.clock, silentLogger, {
    onView: () => Promise.resolve(),
    onLost: () => Promise.resolve(member),
  });
  await membership.start();
  membership.checkFence();
  await membership.stop();
  await membership.beat();
  expect(() => membership.checkFence()).toThrow(expect.objectContaining({ code: 'FENCED' }));
});
