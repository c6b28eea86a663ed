// Before anything is drawn: scripts run, and this is the theme.
document.documentElement.classList.add("js");
try { var kept = localStorage.getItem("theme"); } catch { /* a browser that keeps nothing */ }
document.documentElement.dataset.theme = kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
