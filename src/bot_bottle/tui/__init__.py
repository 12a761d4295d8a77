"""The operator's inbox in the terminal, over `operate.approvals.Desk`. `app.run` opens it."""
