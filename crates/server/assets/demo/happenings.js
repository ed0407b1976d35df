// What happened on this page, for whoever wants to know. Keeps its parts from knowing each other.
//
//   sent {id, subject, isTransient}   a notification was accepted
//   arrived {device, item}      it came to a device
//   settled {device, item}      it was read or withdrawn there
//   phase {device, phase, detail}
//   caughtUp {device, tally}
//   select {id, subject, from}  its timeline is wanted; `from`: the button to come back to
//   told {id, events}           its timeline was shown

const ears = {};

/** Calls `ear` each time, until what this returns is called. */
export function hear(name, ear) {
  (ears[name] ??= new Set()).add(ear);
  return () => ears[name].delete(ear);
}

export const happened = (name, fact) => ears[name]?.forEach(ear => ear(fact));
