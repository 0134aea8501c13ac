// The page of a member that does not serve: look again every second, and go on by itself.
"use strict";

setInterval(async () => {
  try {
    const answer = await fetch("/api/v1/health", { signal: AbortSignal.timeout(900), cache: "no-store" });
    if (answer.ok) location.reload();
  } catch {
    // not yet
  }
}, 1000);
