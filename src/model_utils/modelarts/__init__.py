"""What ModelArts needs: transfers, a lock a job, archives, and the keys that say so."""
